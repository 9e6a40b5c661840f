"""Tell a person over every channel that is configured; what came of each is a value, never an exception (O3)."""

from inbounds.notify import desktop, webhook
from inbounds.notify.notice import Message, Notice, Settings


def tell(settings: Settings, message: Message) -> list[Notice]:
    """Send `message` everywhere; takes at most `timeout_s` per channel and step; [] if nothing is configured."""
    found: list[Notice] = []
    for wanted, channel in ((settings.desktop, desktop), (bool(settings.webhook), webhook)):
        if not wanted:
            continue
        try:
            found.append(channel.send(settings, message))
        except Exception as error:  # a run's end must not depend on a chat server's quirks; the journal has the reason
            found.append(Notice(channel.CHANNEL, False, f"failed: {type(error).__name__}"))
    return found
