"""One decision on what may start, for the spawner, the launcher and the execution API alike.

It is made before a volume or a pod exists, and explains itself: what was asked, what is used, what
remains and what would fit. Here is its core: sizes, limits, the decision, who holds what. The hub
(`mlhub.hub.desk`) brings the cluster and the database to it.
"""

from mlhub.admission.decision import Account, Answer, Ask, Hours, decide
from mlhub.admission.holdings import Charge, Holding
from mlhub.admission.ledger import Ledger, Reservation
from mlhub.admission.limits import Limits, Quotas
from mlhub.admission.sizes import Size

__all__ = [
    "Account",
    "Answer",
    "Ask",
    "Charge",
    "Holding",
    "Hours",
    "Ledger",
    "Limits",
    "Quotas",
    "Reservation",
    "Size",
    "decide",
]
