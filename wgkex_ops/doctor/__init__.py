"""What `wgkex-ops doctor` examines on this host, a file for each subject. It changes nothing."""
