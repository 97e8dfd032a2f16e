"""Host side: strings to integers, with numpy. Nothing here runs on a device."""
