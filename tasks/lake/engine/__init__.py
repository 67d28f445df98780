"""Two engines that run the data steps' SQL: DuckDB in this process, and Spark."""
