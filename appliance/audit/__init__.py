"""What happened, in order: one event for every arrow of the flow, written with the row that it explains."""
