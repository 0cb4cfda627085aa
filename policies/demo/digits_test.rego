package owners.digits_test

import rego.v1

import data.owners.digits
import data.testing

test_research_is_approved if {
	digits.allow with input as testing.request
	digits.deny == set() with input as testing.request
}

test_a_purpose_left_out_is_approved if {
	digits.allow with input as testing.changed("/purpose", "unspecified")
}

test_other_purposes_are_refused_and_named[purpose] if {
	some purpose, topic in {
		"Marketing to writers": "marketing",
		"targeted ADVERTISING": "marketing",
		"pricing of insurance": "insurance",
		"credit decisions": "credit scoring",
		"forensic comparison": "identifying people",
	}
	asked := testing.changed("/purpose", purpose)
	not digits.allow with input as asked
	digits.deny == {{
		"code": "purpose_not_permitted",
		"message": sprintf("The people gave their handwriting for research, not for %s.", [topic]),
		"field": "purpose",
	}} with input as asked
}

test_a_request_without_a_purpose_is_refused if {
	not digits.allow with input as json.remove(testing.request, ["purpose"])
}

test_the_policy_is_for_its_own_dataset if {
	not digits.allow with input as testing.changed("/dataset/policy", "standard")
}

test_other_roles_are_refused if {
	not digits.allow with input as testing.changed("/requester/role", "owner")
}

test_too_many_rounds_are_clamped if {
	asked := testing.changed("/request/rounds", 500)
	digits.allow with input as asked
	limits := digits.limits with input as asked
	asked.request.rounds > limits.max_rounds
}

test_the_demonstrations_own_requests_are_within_the_limits if {
	limits := digits.limits with input as testing.request
	testing.request.request.rounds <= limits.max_rounds
	testing.request.request.noise_multiplier >= limits.min_noise_multiplier
	testing.request.request.clients_per_round <= limits.max_clients_per_round
}

test_more_noise_is_asked_where_most_of_the_pool_takes_part if {
	limits := digits.limits with input as testing.changed("/request/sampling_probability", 0.67)
	limits.min_noise_multiplier == 5
}

test_the_model_is_published if {
	digits.obligations == {{"type": "publish_weights", "params": {}}}
}
