"""How close an update comes to a rate limit, known and unknown.

    python -m benchmarks.pace [--rows 1000] [--limit 100]

Prints the time against the ideal (rows / limit) and the share of calls that were refused.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from benchmarks.bulk_update import KEY, fill, ours, stand_in


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, stand_in(0.02, False, folder) as url:
        os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
        os.environ.setdefault("DATABASE_URL", f"sqlite:///{folder}/benchmark.sqlite3")
        import django
        import requests
        from django.conf import settings
        from django.core.management import call_command

        settings.DEBUG = False
        settings.BLAND_SMS = {"API_KEY": KEY, "BASE_URL": url}
        django.setup()
        call_command("migrate", verbosity=0)
        requests.post(f"{url}/_sandbox/settings", json={"rate_limit": given.limit}, timeout=5)
        ideal = given.rows / given.limit
        for name, rate_limit in (("known", given.limit), ("unknown", None)):
            settings.BLAND_SMS = {"API_KEY": KEY, "BASE_URL": url, "RATE_LIMIT": rate_limit}
            requests.post(f"{url}/_sandbox/clear", timeout=5)
            fill(given.rows)
            seconds = ours(given.rows)
            seen = requests.get(f"{url}/_sandbox/log", timeout=30).json()["requests"]
            refused = sum(one["status"] == 429 for one in seen)
            print(
                f"limit {name:8} {seconds:6.2f} s   {seconds / ideal:5.2f} x ideal   "
                f"{refused / given.rows:6.1%} refused"
            )


if __name__ == "__main__":
    main()
