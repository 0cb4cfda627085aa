package organisation.admission

import rego.v1

# METADATA
# title: The model fits the number of people
# description: |
#   The noise's length grows with the square root of the number of parameters, and its share falls with the number of
#   people, so a large model of few people learns nothing but noise.
warn contains {
	"code": "model_large_for_population",
	"message": sprintf(
		"The model has %d parameters for %d people. Noise grows with parameters: a model below %d is likely to learn more.",
		[input.request.model.parameters, input.population.declared_size, _parameters_per_person * input.population.declared_size],
	),
} if {
	input.request.model.parameters > _parameters_per_person * input.population.declared_size
}

_parameters_per_person := 1000
