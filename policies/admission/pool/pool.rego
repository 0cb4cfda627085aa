package organisation.admission

import rego.v1

# METADATA
# title: A small pool costs more than it gives
# description: |
#   `no_clients` is the expected size of the run's pool. Drawing it earns no privacy, so a small one spends more budget on
#   fewer people. The budget protects them all the same, so this is advice and no refusal; owners may set `min_no_clients`.
warn contains {
	"code": "pool_is_small",
	"message": sprintf(
		"no_clients = %d asks for a pool of %d people. Leave no_clients out, and all %d may be sampled: at these clients per round that costs far less, and learns more.",
		[input.request.no_clients, input.request.no_clients, input.population.declared_size],
	),
} if {
	not _pool_is_large_enough
}

_pool_is_large_enough if input.request.pool_restricted == false

_pool_is_large_enough if input.request.no_clients >= _smallest_sensible_pool

_smallest_sensible_pool := 20
