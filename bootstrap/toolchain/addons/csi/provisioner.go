package main

import (
	"context"
	"maps"
	"strconv"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"
)

// volumes makes them out of nothing but names: the filer has a folder once something is in it.
type volumes struct{}

func provision(ctx context.Context) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	controller.NewProvisionController(
		klog.FromContext(ctx), client, driver, volumes{}, controller.LeaderElection(false),
	).Run(ctx)
	return nil
}

func (volumes) Provision(_ context.Context, options controller.ProvisionOptions) (
	*v1.PersistentVolume, controller.ProvisioningState, error,
) {
	claim := options.PVC.Spec
	capacity := claim.Resources.Requests[v1.ResourceStorage]
	parent := options.StorageClass.Parameters["parentDir"]
	if parent == "" {
		parent = "/buckets"
	}
	attributes := maps.Clone(options.StorageClass.Parameters)
	if attributes == nil {
		attributes = map[string]string{}
	}
	delete(attributes, "parentDir")
	attributes["path"] = parent + "/" + options.PVName
	// A collection for each volume, since its size is the collection's.
	attributes["collection"] = options.PVName
	attributes["volumeCapacity"] = strconv.FormatInt(capacity.Value(), 10)
	reclaim := v1.PersistentVolumeReclaimRetain
	if options.StorageClass.ReclaimPolicy != nil {
		reclaim = *options.StorageClass.ReclaimPolicy
	}
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: reclaim,
			AccessModes:                   claim.AccessModes,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: capacity},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
				Driver: driver, VolumeHandle: options.PVName, VolumeAttributes: attributes,
			}},
		},
	}, controller.ProvisioningFinished, nil
}

// Delete leaves the files where they are: an administrator deletes them, knowing whose they were.
func (volumes) Delete(context.Context, *v1.PersistentVolume) error {
	return &controller.IgnoredError{Reason: "files stay until an administrator deletes them"}
}
