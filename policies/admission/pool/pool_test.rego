package organisation.admission_test

import rego.v1

import data.organisation.admission
import data.testing

restricted(size) := json.patch(testing.request, [
	{"op": "replace", "path": "/request/clients_per_round", "value": 2},
	{"op": "replace", "path": "/request/no_clients", "value": size},
	{"op": "replace", "path": "/request/pool_restricted", "value": true},
	{"op": "replace", "path": "/request/clients_per_round", "value": 2},
])

test_a_handful_of_people_is_warned_about_and_allowed if {
	admission.allow with input as restricted(19)
	testing.codes(admission.warn) == {"pool_is_small"} with input as restricted(19)
}

test_a_sensible_pool_is_not_warned_about if {
	admission.warn == set() with input as restricted(20)
}

test_the_warning_says_what_would_be_better if {
	some warning in admission.warn with input as restricted(3)
	contains(warning.message, "all 300")
}

test_a_pool_of_everyone_is_the_populations_matter if {
	admission.warn == set() with input as testing.changed("/request/no_clients", 10)
}

test_a_round_larger_than_its_pool_is_refused if {
	asked := testing.changed("/request/clients_per_round", 301)
	not admission.allow with input as asked
	testing.codes(admission.deny) == {"round_larger_than_pool"} with input as asked
}

test_a_round_of_the_whole_pool_is_allowed if {
	admission.allow with input as testing.changed("/request/clients_per_round", 300)
}
