"""The verbs, each in a file of its own name, and what they share: request, job, the one loop over the inputs."""
