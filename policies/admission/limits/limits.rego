package organisation.admission

import rego.v1

# METADATA
# title: The bounds that hold for every dataset
# description: |
#   Too little noise or too many rounds are clamped to the bound; a breach of any other bound refuses. They keep mistakes
#   and machine time within reason: the promise to the people comes from the budget, not from these numbers.
limits := {
	"min_noise_multiplier": 0.3,
	"max_rounds": 10000,
	"max_clipping_norm": 100,
	"max_local_epochs": 20,
	"max_batch_size": 1024,
	"max_model_parameters": 20000000,
	"max_client_learning_rate": 10,
	"max_server_learning_rate": 10,
	"allowed_mechanisms": {"gaussian_fixed_clipping"},
}
