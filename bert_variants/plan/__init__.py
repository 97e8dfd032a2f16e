"""Parameters, FLOPs, memory of any config on any mesh, without the hardware."""
