"""One file per audit; `expunge list` names them all."""
