"""The operator's page: what a person sees of a broker or a worker, without JavaScript and without Prometheus."""
