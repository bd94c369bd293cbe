"""Run a notebook every working day at half past six; said twice, it is one schedule.

python morning_report.py ./report.ipynb
"""

import sys

from notebooks.execution import ExecutionClient

NAME = "morning-report"


def main(notebook: str) -> None:
    client = ExecutionClient()
    known = [each for each in client.schedules() if each["name"] == NAME]
    if known:
        schedule = client.change_schedule(known[0]["schedule_id"], suspended=False)
    else:
        schedule = client.schedule(
            NAME, notebook, "30 6 * * MON-FRI", {"days": 1}, time_zone="Europe/Berlin"
        )
    print("next:", ", ".join(schedule["next"][:2]))
    for firing in schedule["last"]:
        print(firing["at"], firing["outcome"], firing["status"] or firing["message"])


if __name__ == "__main__":
    main(sys.argv[1])
