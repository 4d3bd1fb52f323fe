package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// readyWithin bounds one server's start; a busy machine needs some 20 s.
const readyWithin = 3 * time.Minute

// portAttempts bounds how often a server is started again because somebody took
// its port between our look and its bind.
const portAttempts = 5

// plane is one control plane: what was started, in the order of starting.
type plane struct {
	options Options
	folder  *folder
	binary  string

	etcd              *child
	apiserver         *child
	controllerManager *child

	etcdURL       string
	apiserverPort int

	// ends is poked when a child ended, wanted or not; died tells which.
	ends chan struct{}
}

func newPlane(options Options, folder *folder, binary string) *plane {
	return &plane{options: options, folder: folder, binary: binary, ends: make(chan struct{}, 1)}
}

func (p *plane) start(ctx context.Context) error {
	begin := time.Now()
	if err := p.folder.writeKeys(); err != nil {
		return err
	}
	if err := p.startEtcd(ctx); err != nil {
		return err
	}
	if err := p.startFirstAPIServer(ctx); err != nil {
		return err
	}
	if err := p.folder.writeKubeconfigs(p.server()); err != nil {
		return err
	}
	if err := p.startControllerManager(ctx); err != nil {
		return err
	}
	if err := p.awaitServiceAccount(ctx); err != nil {
		return err
	}
	p.options.progress("ready after %.1f s, %s", time.Since(begin).Seconds(), p.server())
	return nil
}

func (p *plane) startEtcd(ctx context.Context) error {
	return p.onFreePorts(func() (*child, error) {
		ports, err := freePorts(2)
		if err != nil {
			return nil, err
		}
		p.etcdURL = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
		peerURL := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
		p.etcd, err = p.startChild("etcd", etcdArguments(p.folder, p.etcdURL, peerURL))
		if err != nil {
			return nil, err
		}
		return p.etcd, p.await(ctx, probe{url: p.etcdURL + "/health"})
	})
}

func (p *plane) startFirstAPIServer(ctx context.Context) error {
	return p.onFreePorts(func() (*child, error) {
		ports, err := freePorts(1)
		if err != nil {
			return nil, err
		}
		p.apiserverPort = ports[0]
		err = p.startAPIServer(ctx)
		return p.apiserver, err
	})
}

// startAPIServer starts it on the port that it has, also after a kill.
func (p *plane) startAPIServer(ctx context.Context) error {
	arguments := apiserverArguments(p.options, p.folder, p.etcdURL, p.apiserverPort)
	apiserver, err := p.startChild("kube-apiserver", arguments)
	if err != nil {
		return err
	}
	p.apiserver = apiserver
	return p.await(ctx, p.apiserverProbe("/readyz"))
}

func (p *plane) startControllerManager(ctx context.Context) error {
	return p.onFreePorts(func() (*child, error) {
		ports, err := freePorts(1)
		if err != nil {
			return nil, err
		}
		arguments := controllerManagerArguments(p.options, p.folder, ports[0])
		p.controllerManager, err = p.startChild("kube-controller-manager", arguments)
		if err != nil {
			return nil, err
		}
		// Its certificate lives in its memory: nothing to check it against.
		healthz := probe{url: fmt.Sprintf("https://127.0.0.1:%d/healthz", ports[0]), anyCertificate: true}
		return p.controllerManager, p.await(ctx, healthz)
	})
}

// awaitServiceAccount waits for what every namespace needs before pods and
// token requests work; the controllers run once it is there.
func (p *plane) awaitServiceAccount(ctx context.Context) error {
	return p.await(ctx, p.apiserverProbe("/api/v1/namespaces/default/serviceaccounts/default"))
}

// onFreePorts starts a server again on other ports if it found its own taken.
func (p *plane) onFreePorts(start func() (*child, error)) error {
	for attempt := 1; ; attempt++ {
		child, err := start()
		if err == nil || child == nil || attempt == portAttempts || !child.foundPortTaken() {
			return err
		}
		p.options.progress("%s found its port taken, trying another", child.name)
	}
}

// killAPIServer is the power cut: nothing is closed, nothing is said.
func (p *plane) killAPIServer() error {
	if p.apiserver == nil {
		return errors.New("the API server does not run")
	}
	p.apiserver.kill()
	p.apiserver = nil
	return nil
}

// restartAPIServer also replaces the controller-manager: after a minute without
// a server the old one takes most of another to look again, and a namespace
// without its ServiceAccount would fail tests that are about something else.
func (p *plane) restartAPIServer(ctx context.Context) error {
	if p.apiserver != nil {
		return errors.New("the API server runs already")
	}
	if err := p.startAPIServer(ctx); err != nil {
		_ = p.killAPIServer() // the port may be free for a later attempt
		return err
	}
	p.controllerManager.kill()
	return p.startControllerManager(ctx)
}

// stop kills in an order in which no server waits for one that is gone: SIGTERM
// would take the API server half a minute, and ten without etcd.
func (p *plane) stop() {
	for _, child := range []*child{p.controllerManager, p.apiserver, p.etcd} {
		if child != nil {
			child.kill()
		}
	}
	p.controllerManager, p.apiserver, p.etcd = nil, nil, nil
	if p.options.Keep {
		return
	}
	if err := os.RemoveAll(p.folder.etcdData()); err != nil {
		p.options.progress("etcd's data stays: %v", err)
	}
}

// died gives the first server that ended without being told to, or nil.
func (p *plane) died() *child {
	for _, child := range []*child{p.etcd, p.apiserver, p.controllerManager} {
		if child != nil && child.hasEnded() {
			return child
		}
	}
	return nil
}

func (p *plane) startChild(name string, arguments []string) (*child, error) {
	p.options.progress("starting %s", name)
	return startChild(p.binary, name, p.folder.log(name), arguments, p.ends)
}

func (p *plane) server() string {
	return fmt.Sprintf("https://127.0.0.1:%d", p.apiserverPort)
}

func (p *plane) apiserverProbe(path string) probe {
	return probe{url: p.server() + path, caFile: p.folder.ca(), token: p.folder.adminToken}
}
