//go:build race

package clustertest_test

// The race detector makes everything ten times slower: fewer histories.
func init() { fewer = true }
