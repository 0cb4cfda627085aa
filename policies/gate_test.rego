package pysytff.gate_test

import rego.v1

import data.pysytff.gate
import data.testing

everything := {
	"allow": true,
	"deny": set(),
	"warn": set(),
	"limits": {},
	"clamp_order": ["rounds"],
	"review": set(),
	"obligations": set(),
}

test_every_rule_of_the_contract_is_passed_on if {
	answer := gate with data.organisation.admission as everything
		with data.owners as {"digits": everything}
		with input as testing.request
	answer == {"organisation": everything, "owner": everything}
}

test_rules_outside_the_contract_are_not_passed_on if {
	answer := gate.owner with data.owners as {"digits": object.union(everything, {"_helper": 1})}
		with input as testing.request
	answer == everything
}

test_an_undefined_rule_is_missing if {
	answer := gate.owner with data.owners as {"digits": {"limits": {}}}
		with input as testing.request
	answer == {"limits": {}}
}

test_the_owners_package_is_the_one_that_the_dataset_names if {
	answer := gate.owner with data.owners as {"digits": {"allow": true}, "standard": {"allow": false}}
		with input as testing.changed("/dataset/policy", "standard")
	answer == {"allow": false}
}

test_an_unknown_owners_package_leaves_the_answer_empty if {
	answer := gate.owner with data.owners as {"digits": everything}
		with input as testing.changed("/dataset/policy", "nobody")
	answer == {}
}

test_the_answer_is_the_two_packages_and_nothing_else if {
	answer := gate with input as testing.request
	object.keys(answer) == {"organisation", "owner"}
}
