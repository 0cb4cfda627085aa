package system.log_test

import rego.v1

import data.system.log

test_every_decision_is_dropped if log.drop with input as {"path": "pysytff/gate"}
