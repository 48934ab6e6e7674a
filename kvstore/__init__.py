"""The service: a durable, linearizable key-value store with watches, and everything around it.

Nothing is imported here, so that each part costs only itself. Clients are in kvstore.client, the command
line in kvstore.cli; kvstore.node is one node of a cluster, and shows what it is made of.
"""
