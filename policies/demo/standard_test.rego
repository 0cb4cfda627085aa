package owners.standard_test

import rego.v1

import data.owners.standard
import data.testing

asked := testing.changed("/dataset/policy", "standard")

changed(path, value) := json.patch(asked, [{"op": "replace", "path": path, "value": value}])

test_research_with_a_purpose_is_approved if {
	standard.allow with input as asked
	standard.deny == set() with input as asked
}

test_a_purpose_is_required[purpose] if {
	some purpose in ["", "   ", "unspecified"]
	not standard.allow with input as changed("/purpose", purpose)
	testing.codes(standard.deny) == {"purpose_required"} with input as changed("/purpose", purpose)
}

test_the_policy_is_for_its_own_dataset if {
	not standard.allow with input as testing.request
}

test_other_roles_are_refused if {
	not standard.allow with input as changed("/requester/role", "admin")
}

test_rounds_of_more_than_half_of_the_people_are_clamped if {
	limits := standard.limits with input as asked
	limits.max_clients_per_round == 150
}

test_a_round_of_one_is_the_least if {
	limits := standard.limits with input as changed("/request/no_clients", 1)
	limits.max_clients_per_round == 1
}

test_the_model_is_published if {
	standard.obligations == {{"type": "publish_weights", "params": {}}}
}
