"""One file per unlearning method; `expunge list` names them all."""
