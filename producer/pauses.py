"""What a person does about a batch that is held."""

from models.pausing import is_by_failures


def how_to_go_on(batch_id: str, paused: str) -> str:
    goes_on = f"`understudy resume {batch_id}` lets it go on"
    if not is_by_failures(paused):
        return goes_on
    return f"`understudy attempts {batch_id}` shows what was answered; once it is mended, {goes_on}"
