# Understudy in an image: the same image runs `worker` and `migrate`.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY models models
COPY producer producer
COPY worker worker
RUN python -m venv /opt/understudy \
 && /opt/understudy/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 understudy
COPY --from=build /opt/understudy /opt/understudy
ENV PATH=/opt/understudy/bin:$PATH PYTHONUNBUFFERED=1
USER understudy
WORKDIR /home/understudy
# SIGTERM drains: `understudy worker` finishes what is in flight within its grace period.
STOPSIGNAL SIGTERM
ENTRYPOINT ["understudy"]
CMD ["worker"]
