-- Accounts for a ClickHouse server; the embedded engine has its own. Run once as an administrator
-- before the broker's first start, with passwords of your own. Names as in `[store]` and `[analyst]` of broker.toml.
-- The analyst may read the views and nothing behind them: they run with their maker's rights.

CREATE USER IF NOT EXISTS broker IDENTIFIED BY 'change-me-1';
GRANT ALL ON market.* TO broker;
GRANT ALL ON market_raw.* TO broker;
GRANT CREATE DATABASE ON *.* TO broker;
GRANT SELECT ON system.* TO broker;
GRANT SET DEFINER ON broker TO broker;

CREATE SETTINGS PROFILE IF NOT EXISTS analyst SETTINGS
    readonly = 1,
    max_execution_time = 10 MAX 60 CHANGEABLE_IN_READONLY,
    max_memory_usage = 4000000000 READONLY,
    max_result_rows = 1000000 READONLY,
    max_result_bytes = 268435456 READONLY,
    result_overflow_mode = 'throw' READONLY,
    max_threads = 4 READONLY,
    max_concurrent_queries_for_user = 8 READONLY,
    os_threads_nice_value_query = 10 READONLY,
    allow_ddl = 0 READONLY,
    allow_introspection_functions = 0 READONLY;

CREATE QUOTA IF NOT EXISTS analyst
    FOR INTERVAL 1 minute MAX queries = 300,
    FOR INTERVAL 1 hour MAX queries = 5000, execution_time = 1800;

CREATE USER IF NOT EXISTS analyst IDENTIFIED BY 'change-me-2' SETTINGS PROFILE 'analyst';
GRANT SELECT ON market.* TO analyst;
ALTER QUOTA analyst TO analyst;
