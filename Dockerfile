# One image for `api`, `worker`, `migrate`, and the commands that submit and inspect.
FROM python:3.12.12-slim-trixie AS build
WORKDIR /src
RUN python -m venv /opt/understudy
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY setup.py .
COPY understudy understudy
COPY models models
COPY producer producer
COPY worker worker
RUN /opt/understudy/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM python:3.12.12-slim-trixie
RUN useradd --create-home --uid 10001 understudy \
    && install --directory --owner 10001 --mode 700 /var/lib/understudy
COPY --from=build /opt/understudy /opt/understudy
ENV PATH=/opt/understudy/bin:$PATH PYTHONUNBUFFERED=1
# By number, so that a cluster can verify that it is not root.
USER 10001
# Writable, for the data folder when neither REDIS_URL nor DATABASE_URL is set. Mount a volume here to keep it.
WORKDIR /home/understudy
# `understudy health` reads this file, which `up`, `api`, `worker` and `run` write every second.
ENV UNDERSTUDY_HEALTH_FILE=/tmp/understudy-health
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["understudy", "health"]
# SIGTERM drains: `understudy worker` finishes what is in flight within its grace period.
STOPSIGNAL SIGTERM
EXPOSE 8080
ENTRYPOINT ["understudy"]
CMD ["worker"]
