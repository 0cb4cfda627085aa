package organisation.admission

import rego.v1

# METADATA
# title: The population is large enough to hide in
# description: Among a few people, noise that hides each of them leaves nothing to learn.
deny contains {
	"code": "population_too_small",
	"message": sprintf(
		"The population has %d people; this organisation trains on at least %d, because among fewer the noise that hides each of them leaves nothing to learn.",
		[input.population.declared_size, _smallest_population],
	),
	"field": "population.declared_size",
} if {
	input.population.declared_size < _smallest_population
}

# METADATA
# title: The population's δ promises something
# description: |
#   A mechanism that publishes one random person's rows outright has δ = 1 / size. A promise that it would keep is none.
deny contains {
	"code": "population_delta_too_large",
	"message": sprintf(
		"The population's delta is %v; for %d people it must be below %v, or publishing one person's data outright would be within the promise.",
		[input.population.delta, input.population.declared_size, 1 / input.population.declared_size],
	),
	"field": "population.delta",
} if {
	input.population.delta * input.population.declared_size >= 1
}

# METADATA
# title: The population's ε promises something
warn contains {
	"code": "population_epsilon_large",
	"message": sprintf(
		"The population's epsilon is %v; above %v the promise to each person is weak.",
		[input.population.epsilon, _largest_usual_epsilon],
	),
} if {
	input.population.epsilon > _largest_usual_epsilon
}

_population_is_fit if {
	input.population.declared_size >= _smallest_population
	input.population.delta * input.population.declared_size < 1
}

_smallest_population := 50

_largest_usual_epsilon := 10
