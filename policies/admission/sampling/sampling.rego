package organisation.admission

import rego.v1

# METADATA
# title: Sampling hides people
# description: A person who is in nearly every round is hidden by the noise alone, and that is expensive.
warn contains {
	"code": "sampling_probability_high",
	"message": sprintf(
		"Each round expects %d of %d people. Below half of them, sampling itself hides people, and the same result costs less budget.",
		[input.request.clients_per_round, input.request.no_clients],
	),
} if {
	input.request.sampling_probability > 0.5
}
