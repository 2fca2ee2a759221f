"""``vppd.toml`` as frozen values; each module holds the tables of one matter."""
