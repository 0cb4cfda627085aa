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

# METADATA
# title: A round is no larger than the pool it is drawn from
deny contains {
	"code": "round_larger_than_pool",
	"message": sprintf(
		"clients_per_round = %d is more than the %d people of the pool; ask for at most %d.",
		[input.request.clients_per_round, input.request.no_clients, input.request.no_clients],
	),
	"field": "clients_per_round",
} if {
	not _pool_holds_a_round
}

_pool_holds_a_round if input.request.clients_per_round <= input.request.no_clients

_pool_is_large_enough if input.request.pool_restricted == false

_pool_is_large_enough if input.request.no_clients >= _smallest_sensible_pool

_smallest_sensible_pool := 20
