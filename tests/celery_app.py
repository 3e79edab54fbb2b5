"""What docs/background.md tells a host with Celery to write."""

from celery import Celery, shared_task

app = Celery("host", broker="redis://127.0.0.1:6379/15")
app.conf.broker_connection_retry_on_startup = True


@shared_task
def carry_out(kind: str, pk: int) -> None:
    from bland_sms.tasks import work

    work(kind, pk)


def dispatch(kind: str, pk: int) -> None:
    carry_out.delay(kind, pk)
