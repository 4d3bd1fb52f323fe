package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// newEtcdCommand runs one etcd member without fsync: its data lives no longer
// than the control plane that it belongs to.
func newEtcdCommand() *cobra.Command {
	var dataDir, clientURL, peerURL string
	command := &cobra.Command{
		Use:          "etcd",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			config, err := etcdConfig(dataDir, clientURL, peerURL)
			if err != nil {
				return err
			}
			return runEtcd(config)
		},
	}
	command.Flags().StringVar(&dataDir, "data-dir", "", "folder of the data (mode 0700)")
	command.Flags().StringVar(&clientURL, "client-url", "", "http://127.0.0.1:PORT for clients")
	command.Flags().StringVar(&peerURL, "peer-url", "", "http://127.0.0.1:PORT for peers; there are none, etcd wants one")
	for _, name := range []string{"data-dir", "client-url", "peer-url"} {
		if err := command.MarkFlagRequired(name); err != nil {
			panic(err) // the flag was defined above
		}
	}
	return command
}

func etcdConfig(dataDir, clientURL, peerURL string) (*embed.Config, error) {
	client, err := url.Parse(clientURL)
	if err != nil {
		return nil, fmt.Errorf("--client-url: %w", err)
	}
	peer, err := url.Parse(peerURL)
	if err != nil {
		return nil, fmt.Errorf("--peer-url: %w", err)
	}
	config := embed.NewConfig()
	config.Dir = dataDir
	config.ListenClientUrls = []url.URL{*client}
	config.AdvertiseClientUrls = []url.URL{*client}
	config.ListenPeerUrls = []url.URL{*peer}
	config.AdvertisePeerUrls = []url.URL{*peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = true
	config.LogLevel = "warn"
	// Zero, the value without this line, logs a warning for every request.
	config.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration
	return config, nil
}

// runEtcd returns when etcd failed; it is ended by SIGKILL.
func runEtcd(config *embed.Config) error {
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer etcd.Close()
	return <-etcd.Err()
}
