package model

import (
	_ "github.com/idemflight/idemflight"
	_ "github.com/stretchr/testify/require"
	_ "pgregory.net/rapid"
)
