package organisation.admission_test

import rego.v1

import data.organisation.admission
import data.testing

test_a_small_population_is_refused if {
	asked := testing.changed("/population/declared_size", 49)
	not admission.allow with input as asked
	testing.codes(admission.deny) == {"population_too_small"} with input as asked
}

test_the_smallest_population_is_allowed if {
	admission.allow with input as testing.changed("/population/declared_size", 50)
}

test_a_delta_that_permits_publishing_one_person_is_refused if {
	asked := testing.changed("/population/delta", 0.004)
	not admission.allow with input as asked
	testing.codes(admission.deny) == {"population_delta_too_large"} with input as asked
}

test_a_large_epsilon_is_remarked_on if {
	asked := testing.changed("/population/epsilon", 20)
	admission.allow with input as asked
	testing.codes(admission.warn) == {"population_epsilon_large"} with input as asked
}
