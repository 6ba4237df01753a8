"""The model as a service: an HTTP API and a page; renderers in processes of their own."""
