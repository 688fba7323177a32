-- Health follows the conditions. The message of Ready says what is true and what to do. Only Stalled requires a person to act.
local health = {status = "Progressing", message = "The operator has not reconciled this generation yet"}
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local stalled = false
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Stalled" and condition.status == "True" then
    stalled = true
  elseif condition.type == "Ready" then
    health.message = condition.message
    if condition.reason == "Suspended" then
      health.status = "Suspended"
    elseif condition.status == "True" then
      health.status = "Healthy"
    end
  end
end
if stalled then
  health.status = "Degraded"
end
return health
