"""What a record, a unit and a label are for each kind of model."""
