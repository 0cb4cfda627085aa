package organisation.admission_test

import rego.v1

import data.organisation.admission
import data.testing

restricted(size) := json.patch(testing.request, [
	{"op": "replace", "path": "/request/no_clients", "value": size},
	{"op": "replace", "path": "/request/pool_restricted", "value": true},
])

test_a_handful_of_people_is_refused if {
	not admission.allow with input as restricted(19)
	testing.codes(admission.deny) == {"pool_too_small"} with input as restricted(19)
}

test_the_smallest_pool_is_allowed if {
	admission.allow with input as restricted(20)
}

test_the_refusal_says_what_would_do if {
	some reason in admission.deny with input as restricted(3)
	contains(reason.message, "at least 20")
	contains(reason.message, "all 300")
	reason.field == "no_clients"
}

test_a_pool_of_everyone_is_the_populations_matter if {
	admission.deny == set() with input as testing.changed("/request/no_clients", 10)
}
