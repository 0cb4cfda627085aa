package organisation.admission

import rego.v1

# METADATA
# title: A run does not single out a handful of people
# description: |
#   `no_clients` is the expected size of the run's pool. It earns no privacy, so a small one only spends more budget on
#   fewer people. A pool that is everyone is the population's matter.
deny contains {
	"code": "pool_too_small",
	"message": sprintf(
		"no_clients = %d asks for a pool of %d people; this organisation asks for at least %d. Leave no_clients out, and all %d may be sampled, at a lower cost.",
		[input.request.no_clients, input.request.no_clients, _smallest_pool, input.population.declared_size],
	),
	"field": "no_clients",
} if {
	not _pool_is_large_enough
}

_pool_is_large_enough if input.request.pool_restricted == false

_pool_is_large_enough if input.request.no_clients >= _smallest_pool

_smallest_pool := 20
