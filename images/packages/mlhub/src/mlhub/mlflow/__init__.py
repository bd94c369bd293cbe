"""Who a person is in MLflow: whoever the Hub says that the bearer of a token is."""
