local actions = {}
-- A suspended object answers a token only once it is resumed, and one that is being deleted never does.
actions["sync-now"] = {disabled = obj.spec.suspend == true or obj.metadata.deletionTimestamp ~= nil}
return actions
