# What cloudflare/pint should not report of the rules:
#   pint --offline --config prometheus/.pint.hcl lint --fail-on=warning prometheus/exophone.rules.yml
checks {
  # It does not see that the recorded series of an alert has the comparison. tests/shipped/test_rules.py does.
  disabled = ["alerts/comparison"]
}

check "promql/regexp" {
  # A friendly name is free text; a pattern is the only way to select by it.
  smelly = false
}
