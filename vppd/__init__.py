"""vppd turns a data center into a virtual power plant."""
