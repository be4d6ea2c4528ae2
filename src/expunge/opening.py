"""Open a folder that a run wrote, to use the model in it: nothing of the run's data is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expunge import models, registry
from expunge.config import RunConfig
from expunge.errors import Problem, UsageError
from expunge.record import RunRecord
from expunge.tasks.kinds import Task

__all__ = ["opened"]


def opened(
    folder: str | Path, large: Any = None, *, trust_remote_code: bool = False
) -> tuple[Any, Any, RunRecord, Task]:
    """Model in eval mode, tokenizer, record and task of a folder.

    Args:
        folder: What `expunge run` or `Erased.save` wrote.
        large: The large model of an offset folder, where it is a black box.
        trust_remote_code: Run code that comes with the model. What the folder's own record says of it counts for nothing:
            who gives you a folder is not to decide that.

    Raises:
        UsageError: It is no such folder, or the model cannot be loaded.
    """
    record = RunRecord.read(folder)
    path, where = str(folder), "folder"
    config = RunConfig.from_dict(record.config)
    task = registry.find("tasks", record.data["task"])
    if large is None:
        if problems := models.inspect_folder(path, where=where):
            raise UsageError(problems)
        model = models.load_model(path, task.auto_class, where=where, trust_remote_code=trust_remote_code)
    else:
        from expunge.offset.folder import is_offset, load_offset

        if not is_offset(path):
            what = f'"{folder}" is no offset folder, so it takes no large model'
            raise UsageError(Problem("large", what, "Leave it out."))
        model = load_offset(path, task.auto_class, where=where, large=large, trust_remote_code=trust_remote_code)
    tokenizer = models.load_tokenizer(path, where=where, trust_remote_code=trust_remote_code)
    names = task.names(model.config, tokenizer, config.data.labels)
    made = task(tokenizer, record.data["max_length"], names, **task.settings(config.model))
    return model.eval(), tokenizer, record, made
