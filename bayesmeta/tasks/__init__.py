"""Where tasks come from: tables, arrays, and simulators with exact oracles."""
