"""Readers of market data: exchange files in, chunks of orders out."""
