package organisation.admission_test

import rego.v1

import data.organisation.admission
import data.testing

test_a_sensible_request_is_allowed_without_remarks if {
	admission.allow with input as testing.request
	admission.deny == set() with input as testing.request
	admission.warn == set() with input as testing.request
}

test_another_version_of_the_input_is_refused if {
	not admission.allow with input as testing.changed("/schema_version", 2)
}

test_an_empty_input_is_refused if {
	not admission.allow with input as {}
}

# Each section of the input that `allow` rests on: left out, nothing may slip through.
test_a_missing_section_is_refused[section] if {
	some section in ["schema_version", "request", "requester", "project", "population"]
	without := json.remove(testing.request, [section])
	not admission.allow with input as without
}

# What the announcement's notebook asks for: three people, two a round, almost no noise, no purpose.
test_the_notebooks_request_is_allowed_with_warnings_and_needs_more_noise if {
	asked := json.patch(testing.request, [
		{"op": "replace", "path": "/request/rounds", "value": 10},
		{"op": "replace", "path": "/request/no_clients", "value": 3},
		{"op": "replace", "path": "/request/pool_restricted", "value": true},
		{"op": "replace", "path": "/request/clients_per_round", "value": 2},
		{"op": "replace", "path": "/request/sampling_probability", "value": 2 / 3},
		{"op": "replace", "path": "/request/noise_multiplier", "value": 0.05},
		{"op": "replace", "path": "/purpose", "value": "unspecified"},
	])
	admission.allow with input as asked
	testing.codes(admission.warn) == {"pool_is_small", "purpose_not_stated", "sampling_probability_high"} with input as asked
	asked.request.noise_multiplier < admission.limits.min_noise_multiplier with input as asked
}
