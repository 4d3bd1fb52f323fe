package supervisor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are taken below Linux's ephemeral range (32768 to 60999): while the API
// server is dead its port must not become the source port of somebody's
// connection, least of all of a client that tries to reach it, which would then
// be connected to itself.
const (
	lowestPort  = 20000
	highestPort = 32767
)

const portTries = 1000

// freePorts gives different ports of 127.0.0.1 that nobody listened on just
// now; a server must still be ready to find its port taken.
func freePorts(count int) ([]int, error) {
	return freePortsFrom(lowestPort, highestPort, count)
}

func freePortsFrom(lowest, highest, count int) ([]int, error) {
	var ports []int
	for range portTries {
		port := lowest + rand.IntN(highest-lowest+1)
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		// Held until all are found, so that they differ.
		defer listener.Close()
		ports = append(ports, port)
		if len(ports) == count {
			return ports, nil
		}
	}
	return nil, errors.New("no free port on 127.0.0.1")
}
