"""Neighbouring relations: what counts as "one person more or less". A population has one, for life.

They are named as in dp_accounting. A budget's guarantee, every event charged to it and every sampler that runs under it
must mean the same relation; what cannot be accounted under the population's relation is refused.

This module does not: say which events go with which relation (``charge`` does).
"""

from __future__ import annotations

# Datasets D and D' are neighbours if D' is D with all data of one privacy unit added or removed.
ADD_OR_REMOVE_ONE = "ADD_OR_REMOVE_ONE"
# … if one unit's data is replaced by any other unit's. The number of units is the same, so it need not be secret.
REPLACE_ONE = "REPLACE_ONE"
# … if one unit's data is replaced by a special "absent" value that contributes zero, or the other way round.
REPLACE_SPECIAL = "REPLACE_SPECIAL"

RELATIONS = (ADD_OR_REMOVE_ONE, REPLACE_ONE, REPLACE_SPECIAL)
