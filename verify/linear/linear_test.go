package linear

import (
	_ "github.com/anishathalye/porcupine"
	_ "github.com/idemflight/idemflight"
	_ "github.com/stretchr/testify/require"
)
