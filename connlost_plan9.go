package idemflight

// connectionLost is empty: Plan 9 reports a lost connection as text only.
var connectionLost []error
